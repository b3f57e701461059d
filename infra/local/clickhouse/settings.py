"""Settings that a reader may change, and to what.

All others are refused. Some name files or servers (`format_schema`, `format_template_row`, `url_base`), some hold
SQL of which the tokenizer sees nothing (`additional_result_filter`, `filter`, `dialect`), some lift bounds
(`max_memory_usage`), and each version of the engine adds more.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from infra.local.clickhouse.errors import READONLY, QueryError
from infra.local.clickhouse.tokens import Kind, Token

_ALLOWED = frozenset({
    "aggregate_functions_null_for_empty", "allow_experimental_analyzer",
    "allow_experimental_correlated_subqueries", "allow_experimental_dynamic_type",
    "allow_experimental_join_right_table_sorting", "allow_experimental_json_type",
    "allow_experimental_variant_type", "allow_hyperscan",
    "allow_suspicious_low_cardinality_types", "allow_suspicious_types_in_group_by",
    "allow_suspicious_types_in_order_by", "allow_suspicious_variant_types",
    "cancel_http_readonly_queries_on_client_close", "connect_timeout",
    "count_distinct_implementation", "count_distinct_optimization", "data_type_default_nullable",
    "decimal_check_overflow", "describe_compact_output", "describe_include_subcolumns",
    "do_not_merge_across_partitions_select_final", "empty_result_for_aggregation_by_empty_set", "enable_analyzer",
    "enable_dynamic_type", "enable_json_type", "enable_materialized_cte",
    "enable_named_columns_in_function_tuple", "enable_unaligned_array_join",
    "enable_positional_arguments", "enable_time_time64_type", "enable_variant_type", "exact_rows_before_limit",
    "except_default_mode", "extremes", "final", "flatten_nested", "force_index_by_date", "force_primary_key",
    "group_by_overflow_mode", "group_by_use_nulls", "intersect_default_mode",
    "interval_output_format", "limit", "max_block_size", "max_columns_to_read", "max_execution_speed",
    "max_execution_time", "max_final_threads", "max_query_size", "max_result_bytes", "max_result_rows",
    "max_threads", "min_execution_speed", "offset", "prefer_column_name_to_alias", "preferred_block_size_bytes",
    "read_overflow_mode", "receive_timeout", "result_overflow_mode", "send_timeout",
    "session_timezone", "set_overflow_mode", "short_circuit_function_evaluation", "sort_overflow_mode",
    "timeout_before_checking_execution_speed", "timeout_overflow_mode", "totals_auto_threshold", "totals_mode",
    "transform_null_in", "union_default_mode", "use_query_condition_cache", "use_skip_indexes",
    "use_skip_indexes_if_final", "use_uncompressed_cache",
})  # fmt: skip
_ALLOWED_GROUPS = (
    "asterisk_include_", "bool_", "cast_", "date_time_", "format_csv_", "format_custom_", "format_tsv_",
    "formatdatetime_", "input_format_", "join_", "max_bytes_before_", "max_bytes_in_", "max_bytes_to_",
    "max_rows_in_", "max_rows_to_", "optimize_", "output_format_", "param_", "parsedatetime_", "query_plan_",
    "regexp_", "type_json_",
)  # fmt: skip
_REFUSED = frozenset({
    "input_format_connection_handling", "input_format_record_errors_file_path",
    "input_format_values_deduce_templates_of_expressions", "input_format_values_interpret_expressions",
    "output_format_schema",
})  # fmt: skip

# Settings, too, but no switches: without a value they are the clause behind something called `settings`.
_CLAUSES = frozenset({"filter", "format", "order", "select", "sort"})

# What costs threads or memory beside max_memory_usage; a reader's answer has a bound of its own.
_AT_MOST = {"max_block_size": 1 << 20, "max_final_threads": 64, "max_threads": 64}
_RESULT_BOUND = "max_result_bytes"


class ReaderSettings:
    """The rules, given the engine's settings by name and the most bytes of a reader's answer (uncompressed)."""

    def __init__(self, known: Collection[str], answer_bytes: int) -> None:
        self._known = known
        self._at_most = _AT_MOST | {_RESULT_BOUND: answer_bytes}

    def check(self, name: str, value: str | None) -> None:
        """Refuse a setting or its value; None stands for a value that is no plain literal.

        Raises:
            QueryError: it is not for readers.
        """
        name = name.lower()
        if name in _REFUSED or (name not in _ALLOWED and not name.startswith(_ALLOWED_GROUPS)):
            raise QueryError(READONLY, f"Setting {name} is not for a user who only reads", "READONLY")
        most = self._at_most.get(name)
        if most is None:
            return
        least = 1 if name == _RESULT_BOUND else 0  # where 0 says: without bound
        number = _number(value)
        if number is None or not least <= number <= most:
            message = f"Setting {name} is between {least} and {most} for a user who only reads"
            raise QueryError(READONLY, message, "READONLY")

    def check_clauses(self, tokens: Sequence[Token]) -> None:
        """Refuse a statement that has such a setting in a SETTINGS clause anywhere, or after SET.

        Raises:
            QueryError: it has.
        """
        tokens = [token for token in tokens if not token.is_mark(b";")]
        for index, token in enumerate(tokens):
            if token.is_word("settings") or (index == 0 and token.is_word("set")):
                for name, values in _assignments(tokens[index + 1 :]):
                    if values or (name in self._known and name not in _CLAUSES):
                        self.check(name, _literal(values))


def _assignments(tokens: Sequence[Token]) -> Iterator[tuple[str, Sequence[Token]]]:
    """Names, and the tokens of their values: `a = 1, b = {'x': 2}, c`. A name alone stands for `c = 1`."""
    at = 0
    while at < len(tokens) and (name := tokens[at].name):
        at += 1
        start, depth = at, 0
        if at < len(tokens) and tokens[at].is_mark(b"="):
            start = at = at + 1
            while at < len(tokens) and not (depth == 0 and tokens[at].is_mark(b",")):
                depth += _nesting(tokens[at])
                if depth < 0:
                    break
                at += 1
            yield name, tokens[start:at] or tokens[start - 1 : start]
        else:
            yield name, ()
        if at >= len(tokens) or not tokens[at].is_mark(b","):
            return
        at += 1


def _nesting(token: Token) -> int:
    if token.kind is not Kind.MARK:
        return 0
    return (token.text in (b"(", b"[", b"{")) - (token.text in (b")", b"]", b"}"))


def _literal(tokens: Sequence[Token]) -> str | None:
    """A number or string; what comes after it in the statement (FORMAT …) is not looked at."""
    if not tokens or tokens[0].kind not in (Kind.NUMBER, Kind.STRING):
        return None
    if len(tokens) > 1 and not tokens[1].name:
        return None
    return tokens[0].text.decode(errors="replace").strip("'")


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
