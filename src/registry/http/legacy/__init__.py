"""The drop-in contracts of cookpad/sds and lyft/discovery."""
