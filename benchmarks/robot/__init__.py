"""What recording costs a robot's control loop, beside what it cannot do without."""
