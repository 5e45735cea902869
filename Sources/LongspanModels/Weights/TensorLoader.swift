import LongspanKernels

/// How the weights of matrix products are held: in any case in memory of the model's own, in the order in which products
/// read them. Q5_0 and Q5_1 stay in the file's mapping unless they are held as f32, and are decoded in every product.
public enum WeightStorage: String, Sendable, CaseIterable {
  /// In the file's types. Products with quantized weights round their inputs to 8 bits, 32 at a time, and those with bf16
  /// to bf16 where the CPU multiplies it (``/LongspanKernels/ProductMode/native``), as llama.cpp does.
  case native
  /// In the file's types. Products decode them and keep their inputs in f32.
  case exact
  /// Decoded to f32 once, when the model is loaded: 4 bytes a weight.
  case f32
}

/// Finds tensors in a file, checks their shapes and makes weights of them.
struct TensorLoader {
  let source: any TensorSource
  let storage: WeightStorage
  let context: KernelContext
  private let arena: WeightArena

  init(source: any TensorSource, storage: WeightStorage, context: KernelContext) throws(LongspanError) {
    self.source = source
    self.storage = storage
    self.context = context
    // tensors that turn out not to be weights of products cost address space only
    var bytes = 0
    for tensor in source.storedTensors where tensor.shape.count == 2 {
      guard let type = Self.heldType(tensor, storage) else { continue }
      guard
        let size = try? PackedWeights.byteCount(type, rows: tensor.shape[1], columns: tensor.shape[0])
      else { continue }
      let (sum, overflow) = bytes.addingReportingOverflow(WeightArena.space(size))
      guard !overflow else { throw LongspanError(.overflow, "\(source.name): is too large") }
      bytes = sum
    }
    arena = try WeightArena(byteCount: bytes)
  }

  /// The type in which a matrix is packed; `nil` if it is not.
  private static func heldType(_ tensor: StoredTensor, _ storage: WeightStorage) -> WeightType? {
    guard let type = tensor.type else { return nil }
    return storage == .f32 ? .f32 : PackedWeights.canPack(type) ? type : nil
  }

  func error(_ code: LongspanError.Code, _ tensor: String, _ what: String) -> LongspanError {
    LongspanError(code, "\(source.name): tensor '\(tensor)' \(what)")
  }

  func shape(of name: String) throws(LongspanError) -> (rows: Int, columns: Int) {
    let tensor = try source.tensor(named: name)
    guard tensor.shape.count == 2 else {
      throw error(.invalidFile, name, "has \(tensor.shape.count) dimensions instead of 2")
    }
    return (tensor.shape[1], tensor.shape[0])
  }

  /// Throws if packing every matrix would take more memory than there is.
  ///
  /// - Parameter table: a tensor that is not packed.
  func requireMemory(besides table: String?) throws(LongspanError) {
    var bytes = 0
    for tensor in source.storedTensors where tensor.shape.count == 2 && tensor.name != table {
      guard let type = Self.heldType(tensor, storage) else { continue }
      bytes += (try? PackedWeights.byteCount(type, rows: tensor.shape[1], columns: tensor.shape[0])) ?? 0
    }
    try SystemMemory.require(bytes, for: "the weights of \(source.name)")
  }

  /// Throws if the file has a bias, which would have to be added.
  func refuseBias(_ name: String) throws(LongspanError) {
    guard !source.hasTensor(named: name) else {
      throw LongspanError(.unsupported, "\(source.name): tensor '\(name)': biases are not supported")
    }
  }

  /// A matrix as the file stores it.
  func stored(_ name: String, rows: Int, columns: Int) throws(LongspanError) -> WeightMatrix {
    let tensor = try source.tensor(named: name)
    guard tensor.shape == [columns, rows] else {
      throw error(
        .invalidFile, name,
        "has shape \(source.describe(tensor.shape)) instead of \(source.describe([columns, rows]))")
    }
    return try weights(tensor, rows: rows, columns: columns)
  }

  private func weights(
    _ tensor: StoredTensor, rows: Int, columns: Int
  ) throws(LongspanError) -> WeightMatrix {
    guard let type = tensor.type else {
      let names = WeightType.allCases.map { "\($0)".uppercased() }.joined(separator: ", ")
      throw error(.unsupported, tensor.name, "has type \(tensor.typeName), which is not one of \(names)")
    }
    do throws(LongspanError) {
      return try source.withUnsafeBytes(of: tensor.name) { bytes throws(LongspanError) in
        try WeightMatrix(type, rows: rows, columns: columns, bytes: bytes, owner: source)
      }
    } catch {
      throw LongspanError(error.code, "\(source.name): tensor '\(tensor.name)': \(error.message)")
    }
  }

  /// A matrix for products, held as the loader's storage says.
  func matrix(_ name: String, rows: Int, columns: Int) throws(LongspanError) -> LinearWeights {
    let stored = try stored(name, rows: rows, columns: columns)
    if storage == .f32 {
      let decoded = stored.type == .f32 ? stored : try stored.dequantized(on: context)
      return LinearWeights(try arena.pack(decoded, on: context), mode: .f32)
    }
    guard PackedWeights.canPack(stored.type) else { return LinearWeights(stored) }
    return LinearWeights(
      try arena.pack(stored, on: context), mode: storage == .exact ? .f32 : .native)
  }

  /// A vector in f32.
  func vector(_ name: String, count: Int) throws(LongspanError) -> [Float] {
    let tensor = try source.tensor(named: name)
    guard tensor.shape == [count], tensor.type == .f32 else {
      throw error(
        .invalidFile, name,
        "is \(tensor.typeName) of shape \(source.describe(tensor.shape)) instead of F32 [\(count)]")
    }
    return try floats(tensor)
  }

  /// The values of a small tensor of any type, decoded.
  ///
  /// - Parameter shape: its extents, innermost first; those of 1 do not count.
  func values(_ name: String, shape: [Int]) throws(LongspanError) -> [Float] {
    try values(name, shapes: [shape])
  }

  /// The values of a small tensor, which may have any of several shapes.
  func values(_ name: String, shapes: [[Int]]) throws(LongspanError) -> [Float] {
    let tensor = try source.tensor(named: name)
    guard shapes.contains(where: { tensor.squeezedShape == $0.filter { $0 != 1 } }) else {
      throw error(
        .invalidFile, name,
        "has shape \(source.describe(tensor.shape)) instead of "
          + shapes.map { source.describe($0) }.joined(separator: " or "))
    }
    return try floats(tensor)
  }

  private func floats(_ tensor: StoredTensor) throws(LongspanError) -> [Float] {
    let columns = tensor.shape.first ?? 1
    let weights = try weights(tensor, rows: tensor.elementCount / columns, columns: columns)
    var values = [Float](repeating: 0, count: tensor.elementCount)
    var span = values.mutableSpan
    try context.dequantize(weights, into: &span)
    return values
  }
}
