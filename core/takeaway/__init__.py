"""What a person takes away from a run: its model as a folder, and a certificate that somebody else can check.

`export` writes the model, `bundle` and `certificate` the certificate and its checks, `claim` compares a claim with
fresh trials, `board` lists certificates on a page.
"""
