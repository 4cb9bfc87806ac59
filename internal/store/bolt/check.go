package bolt

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gitopsd/gitopsd/internal/store"
)

// Report is what Check found in a whole store.
type Report struct {
	Revision uint64
	Epoch    uint64
	Records  int // good records read
	// Damaged are the keys of records that failed their checksum, in order; at
	// most the first ten.
	Damaged []string
}

const maxDamaged = 10

// Check reads every page and every record of the store at path and changes
// nothing. It waits up to lockTimeout (2 s when zero) for a process that has the
// store open, and fails with ErrLocked, with ErrSchema when a newer program
// wrote the file, and with store.ErrCorrupt for any damage it finds: to a record,
// to the set of records (missing, or brought back from an older transaction), to
// the pages. It copes with any content of the file.
//
// It cannot find the loss of exactly the last commit through damage to the
// newest meta page, which leaves what a crash during that commit would leave; nor
// that the whole file was replaced by an older copy of itself.
func Check(path string, lockTimeout time.Duration) (Report, error) {
	f, err := lock(path, os.O_RDONLY, lockTimeout)
	if err != nil {
		return Report{}, err
	}
	report, err := checkFile(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return report, fmt.Errorf("store %s: %w", path, err)
	}
	return report, nil
}

// checkFile is Check on a file that is locked.
func checkFile(f *os.File) (Report, error) {
	info, err := f.Stat()
	if err != nil {
		return Report{}, err
	}
	c := checker{}
	if c.pages, err = openPages(f, info.Size()); err == nil {
		err = c.run()
	}
	if err != nil && !errors.Is(err, ErrSchema) {
		err = fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return c.report, err
}

type checker struct {
	pages   *pages
	report  Report
	buckets map[string][]byte
	sum     sum
	damaged int
}

func (c *checker) run() error {
	c.buckets = map[string][]byte{}
	err := c.pages.tree(c.pages.meta.root, span{}, func(key, value []byte, isBucket bool) error {
		if isBucket && len(c.buckets) < 10 { // a newer schema may have more than we know
			c.buckets[string(key)] = value
		}
		return nil
	})
	if err != nil {
		return err
	}
	own := map[string][]byte{}
	if err := c.bucket(bucketOwn, func(key, value []byte, _ bool) error {
		own[string(key)] = value
		return nil
	}); err != nil {
		return err
	}
	if err := checkSchema(own[string(keySchema)]); err != nil {
		return err
	}
	want, err := decodeState(own[string(keyState)])
	if err != nil {
		return err
	}
	c.report.Revision, c.report.Epoch = want.revision, want.epoch
	if err := c.bucket(bucketRecords, c.record); err != nil {
		return err
	}
	if err := c.compare(want); err != nil {
		return err
	}
	return c.pages.free()
}

func (c *checker) bucket(name []byte, fn visit) error {
	value, there := c.buckets[string(name)]
	if !there {
		return fmt.Errorf("bucket %s is missing", name)
	}
	return c.pages.bucket(value, fn)
}

func (c *checker) record(key, raw []byte, _ bool) error {
	r, err := decode(key, raw)
	if err != nil {
		if c.damaged++; c.damaged <= maxDamaged {
			c.report.Damaged = append(c.report.Damaged, string(key))
		}
		return nil
	}
	c.report.Records++
	c.sum.xor(r.sum)
	return nil
}

func (c *checker) compare(want state) error {
	switch {
	case c.damaged > 0:
		return fmt.Errorf("%d of %d records, first %q", c.damaged, c.damaged+c.report.Records, c.report.Damaged)
	case uint64(c.report.Records) != want.count:
		return fmt.Errorf("%d records were found where there should be %d", c.report.Records, want.count)
	case c.sum != want.sum:
		return errors.New("a record is not the one last written")
	}
	return nil
}
