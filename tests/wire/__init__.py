"""On the wire, among the rough: slow, many, broken and real clients, and the proxies that stand in front."""
