"""How fast the console's pages come with many episodes."""
