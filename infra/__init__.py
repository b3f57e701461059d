"""What every process stands on: settings, clients of the servers, and how they are deployed."""
