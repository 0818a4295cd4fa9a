"""The package of ``package_module.py``."""
