"""The HTTP fronts and the routes: what is asked for most is answered without the cost of a framework."""
