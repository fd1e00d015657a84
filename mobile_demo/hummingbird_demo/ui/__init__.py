"""The Kivy side of the app: widgets, pages, the window. It shows a view-model and takes touches."""
