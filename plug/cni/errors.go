package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/pkg/types"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

// Codes of our own; 0 to 99 are the specification's.
const (
	codeTaken   uint = 100 // an address, a port of the host or a name is somebody else's
	codeBroken  uint = 101 // CHECK: not as ADD left it
	codeRefused uint = 102 // the daemon could not do it
)

// fail makes an error with a code of the specification.
func fail(code uint, format string, args ...any) error {
	return types.NewError(code, fmt.Sprintf(format, args...), "")
}

// wrong is a value that the configuration may not have.
func wrong(key string, err error) error {
	return fail(types.ErrInvalidNetworkConfig, "%s: %v", key, err)
}

// told is what a runtime is told of an error: its code, and all of its text.
func told(err error) *types.Error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		all := many.Unwrap()
		first := told(all[0])
		text := first.Msg
		for _, more := range all[1:] {
			text += "; " + told(more).Msg
		}
		return types.NewError(first.Code, text, "")
	}
	var e *types.Error
	if errors.As(err, &e) && e.Code != types.ErrUnknown { // a plug-in that was run and printed nothing has no code
		return types.NewError(e.Code, err.Error(), "")
	}
	return types.NewError(codeOf(err), err.Error(), "")
}

func codeOf(err error) uint {
	var refused *api.Error
	var bad *config.Error
	switch {
	case errors.As(err, &refused):
		switch refused.Status {
		case http.StatusBadRequest, http.StatusNotFound:
			return types.ErrInvalidNetworkConfig
		case http.StatusConflict:
			return codeTaken
		case http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusTooManyRequests:
			return types.ErrTryAgainLater
		}
		return codeRefused
	case errors.As(err, &bad):
		return types.ErrInvalidNetworkConfig
	case errors.Is(err, api.ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
		return types.ErrTryAgainLater
	}
	return types.ErrInternal
}

// asked names what the daemon was asked for, and says in this plug-in's words that it does
// not answer.
func asked(what string, err error) error {
	var gone *api.UnreachableError
	if err == nil {
		return nil
	}
	if !errors.As(err, &gone) {
		return fmt.Errorf("%s: %w", what, err)
	}
	why := gone.Reason
	switch {
	case errors.Is(err, fs.ErrNotExist):
		why = fmt.Sprintf("there is no socket %s: vswitchd is not running, or its socket is another (key socket)", gone.Socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		why = fmt.Sprintf("nobody answers on %s: vswitchd is not running", gone.Socket)
	}
	return fail(types.ErrTryAgainLater, "%s: %s", what, why)
}

// quoted is a value as a message shows it, cut when it is long.
func quoted(raw []byte) string {
	const limit = 80
	if s := strings.ToValidUTF8(string(raw), "?"); len(raw) <= limit {
		return s
	}
	return strings.ToValidUTF8(string(raw[:limit]), "") + "…"
}
