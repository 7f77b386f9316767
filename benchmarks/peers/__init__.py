"""Other servers with the paths of `fan_out_app`: `/events`, `/publish?count=N&gap=SECONDS`, and a page.

Each is what its documentation shows, with a bounded queue for each stream, and sends the same bytes of body.
"""
