"""Why a run recommends an item: what each item of a history, and each token, adds to its score."""
