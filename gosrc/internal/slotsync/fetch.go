package slotsync

import (
	"cmp"
	"strings"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// fetched is what became of one snapshot file.
type fetched struct {
	missing bool // the primary has none
	err     error
}

// fetchSnapshots brings the snapshot files at some positions here, in one round trip. A file that this process has
// already seen to be the primary's is not read again. Its error is that of the connection.
func (p *pass) fetchSnapshots(lsns map[host.LSN]bool) (map[host.LSN]fetched, error) {
	found := make(map[host.LSN]fetched, len(lsns))
	var ask []host.LSN
	for lsn := range lsns {
		if p.memory.verified[lsn] && p.files.HasSnapshot(lsn) {
			found[lsn] = fetched{}
			continue
		}
		ask = append(ask, lsn)
	}
	if len(ask) == 0 {
		return found, nil
	}
	clear(p.memory.verified)
	read, err := p.primary.Snapshots(p.remote, ask)
	if err != nil {
		return nil, err
	}
	for _, lsn := range ask {
		f := fetched{err: read[lsn].Err, missing: read[lsn].Content == nil && read[lsn].Err == nil}
		if f.err == nil && !f.missing {
			f.err = p.files.WriteSnapshot(lsn, read[lsn].Content)
		}
		found[lsn] = f
	}
	if err := p.files.Sync(); err != nil {
		for _, lsn := range ask {
			found[lsn] = fetched{err: cmp.Or(found[lsn].err, err)}
		}
	}
	for lsn, f := range found {
		if f.err == nil && !f.missing {
			p.memory.verified[lsn] = true
		}
	}
	return found, nil
}

// fetchMappings brings the mapping files of databases here and returns the errors of those for which that failed. One
// query for all of them is the rule; where it fails at the server or at a file, each database is on its own.
func (p *pass) fetchMappings(from map[uint32]host.LSN) (map[uint32]error, error) {
	sources := make([]primary.Source, 0, len(from))
	for database, lsn := range from {
		sources = append(sources, primary.Source{Database: database, From: lsn})
	}
	err := p.mappings(sources)
	if err == nil {
		return nil, nil
	}
	if p.ends(err) {
		return nil, err
	}
	failed := map[uint32]error{}
	for _, source := range sources {
		err := p.mappings([]primary.Source{source})
		if err != nil && p.ends(err) {
			return nil, err
		}
		if err != nil {
			failed[source.Database] = err
		}
	}
	return failed, nil
}

// mappings brings the files of some databases here.
func (p *pass) mappings(sources []primary.Source) error {
	if err := p.primary.Mappings(p.remote, sources, p.files.WriteMapping); err != nil {
		return err
	}
	return p.files.Sync()
}

// ends tells whether an error ends the pass: it is cancelled, or the connection is lost (class 08).
func (p *pass) ends(err error) bool {
	return p.cancelled() != nil || strings.HasPrefix(host.Describe(err).SQLState, "08")
}
