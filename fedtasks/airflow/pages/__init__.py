"""The pages inside Airflow: shells without data over one JSON API, which reads the store and changes by the gateway."""
