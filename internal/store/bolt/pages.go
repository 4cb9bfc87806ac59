package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// pages reads the pages of a bbolt file and trusts none of them: every number is
// checked before it is followed, and no page is visited twice. bbolt itself
// believes what it reads, so that damage makes it panic, loop, or allocate
// without bound; this reader goes over a file before bbolt is let near it. The
// layout is that of bbolt's file format 2, in the byte order of the machine.
type pages struct {
	r    io.ReaderAt
	size uint64 // of a page
	meta meta
	seen []bool // by page number: part of a tree, or of the list of free pages
}

// meta is the root of one transaction.
type meta struct {
	root, freelist, end, txid uint64 // end is one past the last page in use
}

const (
	pageHeader  = 16
	elementSize = 16
	metaSize    = 64 // with its checksum in the last 8 bytes

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10

	elementBucket = 0x01 // flag of a leaf element whose value is a bucket

	metaMagic    = 0xED0CDAED
	metaVersion  = 2
	noFreelist   = ^uint64(0)
	bucketHeader = 16
)

func u16(b []byte) uint64 { return uint64(binary.NativeEndian.Uint16(b)) }
func u32(b []byte) uint64 { return uint64(binary.NativeEndian.Uint32(b)) }
func u64(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }

// openPages finds the newest good meta page, as bbolt does. The other one may be
// torn: a power cut during a commit leaves it so.
func openPages(r io.ReaderAt, fileSize int64) (*pages, error) {
	if fileSize <= 0 {
		return nil, errors.New("the file is empty")
	}
	var best *pages
	// The second meta page stands where the page size says, which only a good
	// first one tells; otherwise the sizes that bbolt may have used are tried.
	for offset := int64(0); offset < fileSize && offset <= 64<<10; offset = max(1<<10, offset*2) {
		p, err := readMeta(r, offset)
		if err != nil || (offset != 0 && uint64(offset) != p.size) {
			continue
		}
		if best == nil || p.meta.txid > best.meta.txid {
			best = p
		}
	}
	if best == nil {
		return nil, errors.New("neither meta page is good")
	}
	m := best.meta
	if m.end < 4 || m.end > uint64(fileSize)/best.size {
		return nil, fmt.Errorf("the file has %d bytes, too few for %d pages of %d", fileSize, m.end, best.size)
	}
	best.seen = make([]bool, m.end)
	best.seen[0], best.seen[1] = true, true
	return best, nil
}

func readMeta(r io.ReaderAt, offset int64) (*pages, error) {
	b := make([]byte, pageHeader+metaSize)
	if _, err := r.ReadAt(b, offset); err != nil {
		return nil, err
	}
	flags, b := u16(b[8:]), b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	if flags != flagMeta || u32(b) != metaMagic || u32(b[4:]) != metaVersion || u64(b[metaSize-8:]) != sum.Sum64() {
		return nil, errors.New("not a good meta page")
	}
	size := u32(b[8:])
	if size < 1<<10 || size > 64<<10 || size&(size-1) != 0 {
		return nil, fmt.Errorf("page size %d", size)
	}
	return &pages{r: r, size: size, meta: meta{root: u64(b[16:]), freelist: u64(b[32:]), end: u64(b[40:]), txid: u64(b[48:])}}, nil
}

// read returns a page with the pages it overflows into, and marks them as seen.
func (p *pages) read(id uint64) ([]byte, error) {
	if id < 2 || id >= p.meta.end {
		return nil, fmt.Errorf("page %d is outside the file", id)
	}
	head := make([]byte, pageHeader)
	if _, err := p.r.ReadAt(head, int64(id*p.size)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	n := u32(head[12:]) + 1
	if u64(head) != id || n > p.meta.end-id {
		return nil, fmt.Errorf("page %d has a damaged header", id)
	}
	for i := id; i < id+n; i++ {
		if p.seen[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		p.seen[i] = true
	}
	b := make([]byte, n*p.size)
	if _, err := p.r.ReadAt(b, int64(id*p.size)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return b, nil
}

// visit is called for each element of a tree, in the order of the keys. key and
// value are valid until it returns.
type visit func(key, value []byte, isBucket bool) error

// span is where the keys of a page have to be: from low on and below high; nil is open.
type span struct{ low, high []byte }

func (s span) holds(key []byte) bool {
	return bytes.Compare(key, s.low) >= 0 && (s.high == nil || bytes.Compare(key, s.high) < 0)
}

// tree visits the elements below a page.
func (p *pages) tree(id uint64, in span, fn visit) error {
	b, err := p.read(id)
	if err != nil {
		return err
	}
	switch u16(b[8:]) {
	case flagLeaf:
		err = leaf(b, in, fn)
	case flagBranch:
		err = p.branch(b, in, fn)
	default:
		err = errors.New("is neither branch nor leaf")
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (p *pages) branch(b []byte, in span, fn visit) error {
	keys, ids, err := branchElements(b)
	if err != nil {
		return err
	}
	for i, key := range keys {
		within := span{low: key, high: in.high}
		if i+1 < len(keys) {
			within.high = keys[i+1]
		}
		if !in.holds(key) || (i > 0 && bytes.Compare(keys[i-1], key) >= 0) {
			return errors.New("its keys are out of order")
		}
		if err := p.tree(ids[i], within, fn); err != nil {
			return err
		}
	}
	return nil
}

func branchElements(b []byte) (keys [][]byte, ids []uint64, err error) {
	count := u16(b[10:])
	if count == 0 {
		return nil, nil, errors.New("a branch without elements")
	}
	for i := range count {
		at := pageHeader + i*elementSize
		if at+elementSize > uint64(len(b)) {
			return nil, nil, errors.New("more elements than fit")
		}
		key, ok := slice(b, at+u32(b[at:]), u32(b[at+4:]))
		if !ok {
			return nil, nil, errors.New("a key outside the page")
		}
		keys, ids = append(keys, key), append(ids, u64(b[at+8:]))
	}
	return keys, ids, nil
}

// leaf visits the elements of a leaf page, or of the page inside an inline bucket.
func leaf(b []byte, in span, fn visit) error {
	var last []byte
	for i := range u16(b[10:]) {
		at := pageHeader + i*elementSize
		if at+elementSize > uint64(len(b)) {
			return errors.New("more elements than fit")
		}
		start, keySize := at+u32(b[at+4:]), u32(b[at+8:])
		key, ok := slice(b, start, keySize)
		value, ok2 := slice(b, start+keySize, u32(b[at+12:]))
		if !ok || !ok2 {
			return errors.New("an element outside the page")
		}
		if !in.holds(key) || (i > 0 && bytes.Compare(last, key) >= 0) {
			return errors.New("its keys are out of order")
		}
		if err := fn(key, value, u32(b[at:])&elementBucket != 0); err != nil {
			return err
		}
		last = key
	}
	return nil
}

// slice returns n bytes of b from start on. Both come from 32-bit fields and
// cannot overflow.
func slice(b []byte, start, n uint64) ([]byte, bool) {
	if start+n > uint64(len(b)) {
		return nil, false
	}
	return b[start : start+n], true
}

// bucket visits the elements of the bucket that a leaf element holds.
func (p *pages) bucket(value []byte, fn visit) error {
	if len(value) < bucketHeader {
		return errors.New("a bucket with a short header")
	}
	if root := u64(value); root != 0 {
		return p.tree(root, span{}, fn)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || u16(inline[8:]) != flagLeaf {
		return errors.New("a bucket with a damaged page inside")
	}
	return leaf(inline, span{}, fn)
}

// free checks, after all trees were visited, that every other page is listed as
// free, once, and none that is in use: bbolt writes over what is on the list.
func (p *pages) free() error {
	if p.meta.freelist == noFreelist {
		return errors.New("the list of free pages is missing")
	}
	b, err := p.read(p.meta.freelist)
	if err != nil {
		return fmt.Errorf("the list of free pages: %w", err)
	}
	count, ids := u16(b[10:]), b[pageHeader:]
	if count == 0xFFFF { // too many for the field: the first entry is their number
		count, ids = u64(ids), ids[8:]
	}
	if u16(b[8:]) != flagFreelist || count > uint64(len(ids))/8 {
		return errors.New("the list of free pages is damaged")
	}
	for i := range count {
		id := u64(ids[8*i:])
		if id >= p.meta.end || p.seen[id] {
			return fmt.Errorf("page %d is listed as free, and is in use or outside the file", id)
		}
		p.seen[id] = true
	}
	for id, seen := range p.seen {
		if !seen {
			return fmt.Errorf("page %d is neither in use nor free", id)
		}
	}
	return nil
}
