"""`sop console`: a web page over the analyst's views. Read-only, but for an operator's three actions."""
