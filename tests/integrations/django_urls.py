"""The addresses of the project: pages of Django itself, and a form of its own to sign up."""

from django.contrib import admin
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.views import LoginView
from django.urls import path
from django.views.generic import CreateView

urlpatterns = [
    path("admin/", admin.site.urls),
    path(
        "up/",
        CreateView.as_view(
            form_class=UserCreationForm, success_url="/in/", template_name="admin/login.html"
        ),
    ),
    path("in/", LoginView.as_view(template_name="admin/login.html")),
]
