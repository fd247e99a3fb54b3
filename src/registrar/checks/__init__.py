"""The checks of endpoints: one module for each type, and the rules that turn results into a state."""
