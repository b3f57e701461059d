"""Tests of the servers on one machine, and of their set-up."""
