"""The endpoints of this process: their checks' results joined into what is published."""
