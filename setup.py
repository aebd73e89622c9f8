"""Package definition; the tools are configured in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).parent / "README.md"

setup(
    name="penstock",
    version="0.1.0",
    description="Pipeline components that end with a numbered model version",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # The rooms are links under penstock/, and find_packages follows links.
    packages=find_packages(include=["penstock", "penstock.*"]),
    package_data={"": ["py.typed", "*.pbtxt", "*.json", "*.jinja"]},
    entry_points={"console_scripts": ["penstock = penstock.__main__:main"]},
    # Ranges wide enough for both dependency sets; constraints/ pins each of them whole.
    install_requires=[
        "tensorflow>=2.16,<2.22",
        "tf-keras>=2.16,<2.22",
        "tensorflow-data-validation>=1.16.1,<1.22",
        "tensorflow-model-analysis>=0.47.1,<0.53",
        "tensorflow-serving-api>=2.16.1,<2.22",
        "tfx-bsl>=1.16.1,<1.22",
        "apache-beam>=2.72,<2.78",
        "ml-metadata>=1.17.1,<1.22",
        "dill>=0.3.1.1,<0.5",
        "numpy>=1.26,<2.5",
        "pandas>=1.5.3,<3",
        "pyarrow>=10.0.1,<26",
        "scipy>=1.11",
        "google-crc32c>=1.5",
        "grpcio>=1.60",
        "jinja2>=3.1",
        "prometheus-client>=0.20",
        "rich>=13",
        "starlette>=0.37",
        # TensorFlow 2.21 no longer brings TensorBoard, which reads ModelRun artifacts.
        "tensorboard>=2.16,<2.22",
        # 0.29 imports pydantic for every verb, which takes as long as all the rest.
        "typer>=0.15,<0.29",
        "typing_extensions>=4.9",
        "uvicorn>=0.29",
        # CsvExampleGen reads .zst files.
        "zstandard>=0.22",
    ],
)
