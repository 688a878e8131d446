"""Signals that wait for a good moment."""

import signal
import threading

import pytest

from devices.signals import StopSignals, ended_by_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_noted(number):
    with StopSignals() as signals:
        assert signals.received is None
        signal.raise_signal(number)
        assert signals.received is number


def test_second_signal_acts_as_usual():
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("with_signal", [True, False])
def test_former_handlers_come_back(with_signal):
    former = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) is not former[1]
        if with_signal:
            signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == former


def test_former_handlers_come_back_after_an_error():
    former = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), StopSignals():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is former


def test_does_nothing_in_another_thread():
    former, during = signal.getsignal(signal.SIGINT), []

    def work():
        with StopSignals() as signals:
            during.extend([signals.received, signal.getsignal(signal.SIGINT)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert during == [None, former]


def test_what_is_ignored_stays_ignored():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ended_by_signals():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGINT)
        assert signals.received is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)
