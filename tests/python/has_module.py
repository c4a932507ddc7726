"""Fails if a module is not installed. Usage: has_module.py NAME"""

import importlib
import sys

importlib.import_module(sys.argv[1])
