package inspect

import (
	"bytes"
	"encoding/binary"
)

// magics are the types that matter for a clinic's protection, in the words of file(1) as far as rules know them. Longest
// first where one contains another.
var magics = [...]struct {
	at   int
	head string
	name string
}{
	{0, "\x7fELF\x02\x01", "ELF 64-bit LSB executable"},
	{0, "\x7fELF\x01\x01", "ELF 32-bit LSB executable"},
	{0, "%PDF-", "PDF document"},
	{0, "{\\rtf", "Rich Text Format data"},
	{0, "PK\x03\x04", "Zip archive data"},
	{0, "PK\x05\x06", "Zip archive data (empty)"},
	{0, "Rar!\x1a\x07", "RAR archive data"},
	{0, "7z\xbc\xaf\x27\x1c", "7-zip archive data"},
	{0, "\x1f\x8b", "gzip compressed data"},
	{0, "BZh", "bzip2 compressed data"},
	{0, "\xfd7zXZ\x00", "XZ compressed data"},
	{0, "MSCF", "Microsoft Cabinet archive data"},
	{0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Composite Document File V2 Document"},
	{0, "\x4c\x00\x00\x00\x01\x14\x02\x00", "MS Windows shortcut"},
	{0, "\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", "Microsoft OneNote"},
	{0, "ITSF", "MS Windows HtmlHelp Data"},
	{0, "\xca\xfe\xba\xbe", "compiled Java class data"},
	{0, "FWS", "Macromedia Flash data"},
	{0, "CWS", "Macromedia Flash data (compressed)"},
	{0, "ZWS", "Macromedia Flash data (lzma compressed)"},
	{0, "\x89PNG\r\n\x1a\n", "PNG image data"},
	{0, "\xff\xd8\xff", "JPEG image data"},
	{0, "GIF8", "GIF image data"},
	{0, "\x00\x00\x01\x00", "MS Windows icon resource"},
	{0, "RIFF", "RIFF (little-endian) data"},
	{0, "OggS", "Ogg data"},
	{0, "ID3", "Audio file with ID3"},
	{4, "ftyp", "ISO Media"},
	{0, "\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Microsoft ASF"},
	{128, "DICM", "DICOM medical imaging data"},
	{0x8001, "CD001", "ISO 9660 CD-ROM filesystem data"},
	{0, "conectix", "Microsoft Disk Image, Virtual Server or Virtual PC"},
	{0, "vhdxfile", "Microsoft Disk Image eXtended"},
	{0, "#!", "a script text executable"},
	{0, "<?xml", "XML document text"},
}

// Magic names a file's type by its first bytes, "" when unknown.
func Magic(b []byte) string {
	if len(b) >= 0x40 && b[0] == 'M' && b[1] == 'Z' {
		off := int(binary.LittleEndian.Uint32(b[0x3c:]))
		if off >= 0 && off+26 <= len(b) && string(b[off:off+4]) == "PE\x00\x00" {
			wide := binary.LittleEndian.Uint16(b[off+24:]) == 0x20b
			dll := binary.LittleEndian.Uint16(b[off+22:])&0x2000 != 0
			switch {
			case wide && dll:
				return "PE32+ executable (DLL) for MS Windows"
			case wide:
				return "PE32+ executable for MS Windows"
			case dll:
				return "PE32 executable (DLL) for MS Windows"
			}
			return "PE32 executable for MS Windows"
		}
		return "MS-DOS executable"
	}
	for i := range magics {
		m := &magics[i]
		if len(b) >= m.at+len(m.head) && string(b[m.at:m.at+len(m.head)]) == m.head {
			return m.name
		}
	}
	head := bytes.ToLower(bytes.TrimLeft(b[:min(len(b), 64)], " \t\r\n"))
	if bytes.HasPrefix(head, []byte("<!doctype html")) || bytes.HasPrefix(head, []byte("<html")) {
		return "HTML document text"
	}
	if len(b) == 0 {
		return ""
	}
	for _, c := range b[:min(len(b), 512)] {
		if c < 0x20 && c != '\n' && c != '\r' && c != '\t' && c != '\f' && c != 0x1b {
			return "data"
		}
	}
	return "ASCII text"
}
