"""From episodes to policies: replay buffer, algorithms, publication."""
