import Glibc
import LongspanKernels

/// A read-only memory mapping of a whole file, released with its owner.
///
/// The pages are shared with every other process that maps the file and are read from disk when they are
/// first touched. A file that another program shortens while it is mapped raises SIGBUS on access, as with
/// every mapping: replace model files by renaming, not by overwriting.
struct MappedFile: ~Copyable, @unchecked Sendable {
  // The mapping is never written through this type and lives until deinit, hence the unchecked Sendable.
  private let base: UnsafeRawPointer
  let byteCount: Int

  /// Maps the regular file at `path`.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `unreadableFile` if there is no such file, if it is no regular
  ///   file, or if it cannot be opened or mapped; with code `invalidFile` if it is empty.
  init(path: String) throws(LongspanError) {
    // a named pipe must be refused below, not waited for
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      throw Self.unreadable(path, "cannot be opened", errno)
    }
    defer { close(descriptor) }

    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      throw Self.unreadable(path, "cannot be examined", errno)
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw LongspanError(.unreadableFile, "\(path): is not a regular file")
    }
    guard status.st_size > 0 else {
      throw LongspanError(.invalidFile, "\(path): is empty")
    }
    guard let byteCount = Int(exactly: status.st_size) else {
      throw LongspanError(.unreadableFile, "\(path): is too large to map")
    }
    guard let address = mmap(nil, byteCount, PROT_READ, MAP_PRIVATE, descriptor, 0), address != MAP_FAILED
    else {
      throw Self.unreadable(path, "cannot be mapped", errno)
    }
    self.base = UnsafeRawPointer(address)
    self.byteCount = byteCount
  }

  deinit {
    munmap(UnsafeMutableRawPointer(mutating: base), byteCount)
  }

  /// The file's bytes, borrowed from the mapping.
  var bytes: RawSpan {
    @_lifetime(borrow self)
    get {
      let span = RawSpan(_unsafeStart: base, byteCount: byteCount)
      return _overrideLifetime(span, borrowing: self)
    }
  }

  private static func unreadable(_ path: String, _ what: String, _ code: Int32) -> LongspanError {
    LongspanError(.unreadableFile, "\(path): \(what): \(String(cString: strerror(code)))")
  }
}
