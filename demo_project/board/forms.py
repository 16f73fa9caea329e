"""The two forms that a visitor can fill in."""

from __future__ import annotations

from django import forms

from .models import Notice, SharedFile


class NoticeForm(forms.ModelForm):
    class Meta:
        model = Notice
        fields = ("title", "body", "author")
        widgets = {  # noqa: RUF012 -- Django's Meta is a description, not an instance
            "body": forms.Textarea(attrs={"rows": 7}),
            "author": forms.TextInput(attrs={"autocomplete": "name"}),
        }


class SharedFileForm(forms.ModelForm):
    class Meta:
        model = SharedFile
        fields = ("file",)
