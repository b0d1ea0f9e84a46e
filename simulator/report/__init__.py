"""What a run, a comparison, a model or a network comes to, as text in a terminal and as a page.

`sections` says what a report says, from its parts; `terminal` and `page` show it.
"""
