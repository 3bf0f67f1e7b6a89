package conninfo

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// maxFile bounds what is read of any file: the worker shares its memory limit with the server's other processes.
const maxFile = 4 << 20

var errNotRegular = errors.New("not a regular file")

// openRegular opens a file without waiting, as opening a named pipe would.
func openRegular(name string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		f.Close()
		return nil, info, err
	}
	return f, info, nil
}

func readRegular(name string) ([]byte, error) {
	f, _, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// pathReason returns what went wrong with a file without repeating its name.
func pathReason(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err.Error()
	}
	return err.Error()
}
