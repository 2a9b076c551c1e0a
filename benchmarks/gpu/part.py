"""One part, in the process that the driver starts for it."""

import importlib
import os
import warnings

from measuring import read_setting

from recsys.fit.command import silence_libraries

if __name__ == "__main__":
    silence_libraries()
    warnings.filterwarnings("ignore", message="the encoder gives all items nearly the same vector")
    setting = read_setting(os.environ["GPU_PART"])
    module, _, function = os.environ["GPU_CALL"].partition(":")
    getattr(importlib.import_module(module), function)(setting)
