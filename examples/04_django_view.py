"""A Django view under WSGI: Django keeps its own response class, streamkit gives it the body, status and headers.

run:  gunicorn --threads 4 --chdir examples 04_django_view:app
curl: curl -N http://127.0.0.1:8000/
"""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path

from streamkit import EventSourceResponse
from streamkit.responses.streamed import StreamedResponse

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="only for this example")


def answer(response: StreamedResponse, request: HttpRequest) -> StreamingHttpResponse:
    body, status, headers = response.get_wsgi_response(request.environ)
    return StreamingHttpResponse(body, status=int(status.split()[0]), headers=dict(headers))


def countdown(request: HttpRequest) -> StreamingHttpResponse:
    return answer(EventSourceResponse((f"{n} seconds" for n in (3, 2, 1)), lifecycle=True), request)


urlpatterns = [path("", countdown)]
app = get_wsgi_application()
