"""The process: configuration, wiring (`app` only), life cycle, command line and admin API."""
