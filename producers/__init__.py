"""The robot's side: records episodes and follows the policy."""
