"""Cameras on the robot: frames are encoded by a process beside the control loop, and wait on disk as segments."""
