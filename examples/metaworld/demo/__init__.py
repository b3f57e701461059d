"""`sop demo`: a simulated fleet gets better on real servers, and every episode is accounted for."""
