"""From a file's bytes to its text: plain text and source code, Markdown, HTML, PDF.

A form feed in the text marks a good place to cut it: a heading, a new page.
"""
