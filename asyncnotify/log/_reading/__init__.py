"""Reading a log: from a place in its order to its end, and on as events come."""
