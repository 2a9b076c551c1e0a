"""What training changes in histories and texts, drawn from (seed, epoch, example) alone."""
