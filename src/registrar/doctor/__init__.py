"""The examination of a machine or task by ``registrar doctor``."""
