"""How good is it: degradation, metrics, tables and figures."""
