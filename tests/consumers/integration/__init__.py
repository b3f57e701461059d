"""The consumers against real servers, as processes of their own."""
