"""stand-in"""
def last_event_id(environ): return environ.get("HTTP_LAST_EVENT_ID") or None
