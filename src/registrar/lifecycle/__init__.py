"""The life of the process: start, reload, drain and stop, with or without the app as a child."""
