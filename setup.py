"""What a wheel holds: the packages of recsys/, and the YAML files that lie beside it.

Everything else stands in pyproject.toml, where packages are either found or listed; here they are
found, and two more folders become package data.
"""

from setuptools import find_packages, setup

SHIPPED = {f"recsys._shipped.{name}": name for name in ("experiments", "sweeps")}

setup(
    packages=[*find_packages(include=["recsys", "recsys.*"]), *SHIPPED],
    package_dir=SHIPPED,
    package_data={
        "recsys": ["py.typed"],
        "recsys.serve": ["page/*"],
        **{name: ["*.yaml", "*/*.yaml"] for name in SHIPPED},
    },
)
