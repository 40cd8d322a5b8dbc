"""Generated from `protos/fedtasks/v1`; do not edit."""
