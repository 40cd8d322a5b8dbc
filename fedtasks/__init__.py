"""Federated learning between companies that each run their own Apache Airflow."""

__version__ = "0.2.0"
