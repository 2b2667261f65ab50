"""Irises, DVC two ways: Prefect operates `dvc repro`, or Prefect owns the same stages."""
