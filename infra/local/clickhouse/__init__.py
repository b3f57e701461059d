"""ClickHouse without its server: the embedded engine (chdb) behind ClickHouse's own HTTP interface.

request.py (HTTP) → gateway.py (ASGI) → execution.py (one query) → engine.py (handles); what a statement is, and
whether its user may run it, is decided in statement.py and policy.py on the tokens of tokens.py.
"""
