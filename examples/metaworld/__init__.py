"""A simulated fleet on Meta-World: tasks, the world, the scripted expert and its takeover rule, the demo."""
