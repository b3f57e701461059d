"""`sop fleet-emulator`: a fleet at the wire. Real robot clients in few processes, without simulator and spool."""
