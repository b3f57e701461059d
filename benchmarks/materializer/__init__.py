"""What a step costs in the materializer, beside what it costs to merely consume it."""
